"""What ties the package to Keras before either imports the other: names of classes, and the backend in use."""
