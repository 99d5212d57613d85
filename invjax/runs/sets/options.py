"""What `commands.sample` is asked for besides the shared settings."""

import dataclasses
from typing import Any

METHODS = ("starts", "repulsion", "mala", "hmc")
CHAINS = ("mala", "hmc")


@dataclasses.dataclass(frozen=True)
class Options:
    """How samples are drawn and measured; config.json keeps it beside the settings.

    Attributes:
      method: one of `METHODS`.
      num_samples: number of samples of each code and lambda_V.
      num_pairs: largest number of pairs of samples whose distance is measured.
      target_error: relative error at which depths are compared, and that Markov chains
        are calibrated to; None takes samples as they come.
      error_band: largest relative deviation of a sample's error from the target error.
      temperature: temperature of Markov chains, in place of the target error.
      num_chains, num_warmup, thin: as in `mcmc.sample`.
      num_leaps: leapfrog steps of a step of Hamiltonian Monte Carlo.
      set_size: largest number of images that are kept apart from each other.
      repulsion: weight of the repulsion; see `repulsion.repel`.
      geometry: whether the Jacobian and designed invariances are measured, too.
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
        """Number of inversions of each code: the samples, or the starts of chains."""
        return self.num_chains if self.method in CHAINS else self.num_samples

    @property
    def num_draws(self) -> int:
        """Number of samples of one chain; the chains together have enough."""
        return -(-self.num_samples // self.num_chains)

    def in_short(self) -> "Options":
        """The options under --smoke: two samples."""
        return dataclasses.replace(
            self, num_samples=2, num_chains=2, num_warmup=40, thin=1, num_leaps=2
        )

    def as_json(self) -> dict[str, Any]:
        """The options by name."""
        return dataclasses.asdict(self)
