"""What `commands.sample` is asked for besides the shared settings."""

import dataclasses
from typing import Any

METHODS = ("starts", "repulsion", "mala", "hmc")
CHAINS = ("mala", "hmc")


@dataclasses.dataclass(frozen=True)
class Options:
    """Written to config.json beside the settings.

    Attributes:
      method: of `METHODS`.
      num_samples: of each code and lambda.
      num_pairs: most pairs of samples whose distance is measured.
      target_error: relative error at which depths are compared, and that chains look
        for; None to take samples as they come.
      error_band: share of the target error that a sample may be off it.
      temperature: of chains, in place of the target error.
      num_chains, num_warmup, thin: of chains; see `sampling.sample`.
      num_leaps: of Hamiltonian Monte Carlo.
      set_size: most images that are kept apart from each other.
      repulsion: how strongly; see `repulsion.repel`.
      geometry: whether the representation is looked at, too.
    """

    method: str
    num_samples: int
    num_pairs: int
    target_error: float | None
    error_band: float
    temperature: float | None
    num_chains: int
    num_warmup: int
    thin: int
    num_leaps: int
    set_size: int
    repulsion: float
    geometry: bool

    @property
    def num_inversions(self) -> int:
        """Of each code and lambda: samples, or the starts of chains."""
        return self.num_chains if self.method in CHAINS else self.num_samples

    @property
    def num_draws(self) -> int:
        """Samples of one chain; together no fewer than were asked for."""
        return -(-self.num_samples // self.num_chains)

    def in_short(self) -> "Options":
        """Of `--smoke`: two samples."""
        return dataclasses.replace(
            self, num_samples=2, num_chains=2, num_warmup=40, thin=1, num_leaps=2
        )

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
