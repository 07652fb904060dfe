"""
Ways back through the graph beside the gradient: rule tables for the same sweep, and what they need of the forward run.

================  =====================================================================================================
guided.py         guided back-propagation: the gradient's rules, negative cotangents cut off at rectifiers
relevance.py      layer-wise relevance propagation, alpha 1 and beta 0
lift.py           DeepLIFT's rescale rule, against a second run from a reference
biases.py         which tensors receive a bias, and how much of it
linear.py         copies of a node with other operands, and guarded division: shared by the others
================  =====================================================================================================
"""
