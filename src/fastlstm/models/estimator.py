"""What scikit-learn asks of an estimator: parameters by name, and a score. It is imported only where it asks itself."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Self

from fastlstm.models.row_model import RowModel


class Estimator(RowModel):
    """Base of the models that scikit-learn's tools can copy, set and score, such as ``cross_val_score``.

    ``fit`` takes its own arguments there as ``params={"epochs": 5, "batch_size": 32}``. Other than an estimator of
    scikit-learn, a model goes on from the weights it has when ``fit`` is called again; ``clone`` makes a new one.
    """

    _estimator_type: ClassVar[str]  # where scikit-learn before 1.6 looks

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, as scikit-learn calls it
        """The constructor's arguments by name."""
        return dict(self.options)

    def set_params(self, **params: Any) -> Self:
        """Change some of the constructor's arguments: the model is as if it were made anew with them, and untrained.

        Without arguments nothing happens.

        Raises
        ------
        TypeError, ValueError
            The constructor has no such argument, or would not take it; nothing changes then.
        """
        if unknown := sorted(params.keys() - self.options.keys()):
            raise ValueError(
                f"unknown parameters {', '.join(unknown)}; {type(self).__name__} has {', '.join(self.options)}"
            )
        if params:
            made = type(self)(**{**self.options, **params}).to(self.device)
            vars(self).clear()
            vars(self).update(vars(made))
        return self

    @abc.abstractmethod
    def score(self, xs: Any, ts: Any) -> float:
        """How good the predictions are: 1 is the best."""

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        classifies = self._estimator_type == "classifier"
        return Tags(
            estimator_type=self._estimator_type,
            target_tags=TargetTags(required=True, multi_output=not classifies),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
            input_tags=InputTags(two_d_array=classifies, three_d_array=not classifies),
        )
