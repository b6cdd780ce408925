"""Arrays in, numbers with intervals out. Knows no files, no models and no trainer."""

from ecgfast.eval.bootstrap import interval as interval
from ecgfast.eval.bootstrap import replicate as replicate
from ecgfast.eval.calibration import calibration_rows as calibration_rows
from ecgfast.eval.calibration import reliability as reliability
from ecgfast.eval.classification import classification_rows as classification_rows
from ecgfast.eval.classification import roc_band as roc_band
from ecgfast.eval.classification import threshold_at_sensitivity as threshold_at_sensitivity
from ecgfast.eval.comparison import difference as difference
from ecgfast.eval.comparison import differences as differences
from ecgfast.eval.comparison import holm as holm
from ecgfast.eval.delong import delong as delong
from ecgfast.eval.gap import gap_rows as gap_rows
from ecgfast.eval.label_efficiency import label_ratio as label_ratio
from ecgfast.eval.label_efficiency import over_seeds as over_seeds
from ecgfast.eval.multiclass import multiclass_rows as multiclass_rows
from ecgfast.eval.probe import linear_probe as linear_probe
from ecgfast.eval.projection import project as project
from ecgfast.eval.ranking import ranking_rows as ranking_rows
from ecgfast.eval.ranking import recall_at_k as recall_at_k
from ecgfast.eval.regression import regression_rows as regression_rows
from ecgfast.eval.serial import serial_rows as serial_rows
from ecgfast.eval.serial import visits as visits
from ecgfast.eval.subgroups import AGE_BANDS as AGE_BANDS
from ecgfast.eval.subgroups import subgroups as subgroups
from ecgfast.eval.survival import c_index as c_index
from ecgfast.eval.survival import survival_rows as survival_rows
