"""Classes of requests that arrive together."""

from pydantic import Field, ValidationError

from .errors import SpecError, explain
from .figures import Strict, Text
from .files import load


class MixSpec(Strict):
    """Several classes of requests, each with keys of `workload` of phase `serve`."""

    title: Text
    classes: dict[str, dict[str, object]] = Field(min_length=1)


def load_mix(name: str) -> MixSpec:
    """A mix by the path of its file.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("mixes", name)
    try:
        spec = MixSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, MixSpec)) from None
    missing = [
        f"{where}: classes.{key}.request_rate: required key is missing; add it"
        for key, workload in spec.classes.items()
        if "request_rate" not in workload
    ]
    if missing:
        raise SpecError(missing)
    return spec
