"""The tables of the DeepLab papers, one module a paper or two. published.py puts them together."""
