"""TFLite files: conversion, half precision, quantisation, and the flatbuffer itself."""
