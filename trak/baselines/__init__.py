"""What else people would try, behind one interface: `Baseline.attribute(model, task, checkpoints, train, targets)`.

Every baseline gives scores of the library's meaning: positive says that training on the example
pushed the target's output up. Settings go to the constructor; `BASELINES` finds a class by its name.

============================ ========================= ==================================================
class                        name                      source
============================ ========================= ==================================================
`GradientDot`                gradient_dot              Charpiat et al., 2019
`GradientCosine`             gradient_cosine           as in LESS; Xia et al., 2024
`TracIn`                     tracin                    Pruthi et al., 2020
`InfluenceFunctions`         influence_functions       Koh & Liang, 2017; Arnoldi: Schioppa et al., 2022
`EKFAC`                      ekfac                     George et al., 2018; Grosse et al., 2023
`RepresentationSimilarity`   representation_similarity Hanawa et al., 2021
`EmpiricalInfluence`         empirical_influence       Feldman & Zhang, 2020
`Datamodel`                  datamodel                 Ilyas et al., 2022
`DataShapley`                data_shapley              Ghorbani & Zou, 2019
`KNNShapley`                 knn_shapley               Jia et al., 2019
`BM25`                       bm25                      Robertson & Zaragoza, 2009
`Random`                     random                    chance
============================ ========================= ==================================================

Influence functions, EK-FAC, datamodels and BM25 need curvlinops, scikit-learn and bm25s:
`pip install 'trak-attribution[baselines]'`.
"""

from trak.baselines.base import BASELINES, Baseline, CheckpointBaseline, register_baseline
from trak.baselines.bm25 import BM25
from trak.baselines.ekfac import EKFAC
from trak.baselines.gradients import GradientCosine, GradientDot, TracIn
from trak.baselines.influence import InfluenceFunctions
from trak.baselines.knn import KNNShapley
from trak.baselines.random_scores import Random
from trak.baselines.representations import RepresentationSimilarity
from trak.baselines.retrained import Datamodel, EmpiricalInfluence
from trak.baselines.shapley import DataShapley

__all__ = [
    "BASELINES",
    "BM25",
    "EKFAC",
    "Baseline",
    "CheckpointBaseline",
    "DataShapley",
    "Datamodel",
    "EmpiricalInfluence",
    "GradientCosine",
    "GradientDot",
    "InfluenceFunctions",
    "KNNShapley",
    "Random",
    "RepresentationSimilarity",
    "TracIn",
    "register_baseline",
]
