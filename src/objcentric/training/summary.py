"""The final figures of a run, as eval.json holds them."""

import statistics
from collections.abc import Sequence
from typing import Any

from objcentric.training.writer import to_json


def summarize(
    seeds: Sequence[int], per_seed: Sequence[dict[str, Any]], failures: dict[int, str], *, judged: bool
) -> dict[str, Any]:
    """Figures of every seed, and over the seeds.

    Args:
      seeds: S seeds.
      per_seed: of each seed its figures, numbers or nested lists.
      failures: of each seed that failed, in what way.
      judged: whether success can be told; if not, ``success_rate`` is None.

    Returns:
      every number's mean under its own name (for one seed: every figure, lists too); ``figures``: their mean, sample
      std (0 for one seed) and n; ``per_seed``; ``success_rate``; ``failures``. A mean over a figure that is not finite
      for some seed is None.
    """
    per_seed = [to_json(figures) for figures in per_seed]
    numbers = {name: [seed[name] for seed in per_seed] for name, value in per_seed[0].items() if _is_number(value)}
    figures = {name: _statistics(values) for name, values in numbers.items()}
    flat = per_seed[0] if len(seeds) == 1 else {name: entry["mean"] for name, entry in figures.items()}
    return {
        **flat,
        "seeds": list(seeds),
        "success_rate": 1 - len(failures) / len(seeds) if judged else None,
        "failures": {str(seed): signature for seed, signature in failures.items()},
        "figures": figures,
        "per_seed": [{"seed": seed, **figures} for seed, figures in zip(seeds, per_seed, strict=True)],
    }


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _statistics(values: list[float | None]) -> dict[str, float | int | None]:
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return {"mean": None, "std": None, "n": len(values)}
    std = statistics.stdev(finite) if len(finite) > 1 else 0.0
    return {"mean": statistics.fmean(finite), "std": std, "n": len(values)}
