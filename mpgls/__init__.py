"""mpgls: MPI-parallel generalised least squares for mixed-model genome-wide association studies."""

from mpgls.version import __version__

__all__ = ["__version__"]
