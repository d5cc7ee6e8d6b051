"""Networks and heads: tensors and arrays in, tensors and arrays out.

Each network is one file with a `build(**hyperparameters)` that returns a module with its optimizer.
A detector is a network whose module has an `error_map`.
"""
