"""Answers to common questions about training data, one function each.

`find_label_issues`: which training examples are probably labelled wrong? `find_removal_set`: which would I remove to
change this prediction, and would it change? `group_attribution`: which examples and groups support these targets?
`data_values`: which training examples help, and which are useless? `compare_attributions`: what do two models learn
differently? Every answer prints, becomes a table by `to_frame()` and draws itself by `plot()`.
"""

from trak.analysis.attribution_by_group import GroupAttribution, group_attribution
from trak.analysis.comparison import Comparison, compare_attributions
from trak.analysis.data_valuation import DataValues, data_values
from trak.analysis.label_issues import LabelIssues, find_label_issues
from trak.analysis.removal_set import RemovalCheck, RemovalSet, find_removal_set

__all__ = [
    "Comparison",
    "DataValues",
    "GroupAttribution",
    "LabelIssues",
    "RemovalCheck",
    "RemovalSet",
    "compare_attributions",
    "data_values",
    "find_label_issues",
    "find_removal_set",
    "group_attribution",
]
