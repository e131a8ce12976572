"""mpgls for Spack. docs/cluster.md says how to install it from a checkout."""

from spack.package import *
from spack_repo.builtin.build_systems.python import PythonPackage


class PyMpgls(PythonPackage):
    """MPI-parallel generalised least squares for mixed-model genome-wide association studies."""

    version("0.1.0")

    license("BSD-3-Clause")

    variant("images", default=True, description="brain images: vgwas-extract, maps, parcels")
    variant("parquet", default=False, description="hits of multi-trait as Parquet")
    variant("slepc", default=False, description="leading eigenpairs, ELPA")

    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-setuptools@77:", type="build")
    depends_on("mpi", type="run")
    depends_on("scalapack", type="run")
    depends_on("py-mpi4py@3.1:", type=("build", "run"))
    depends_on("py-numpy@1.24:", type=("build", "run"))
    depends_on("py-scipy@1.10:", type=("build", "run"))
    depends_on("py-h5py@3.7:", type=("build", "run"))
    depends_on("py-threadpoolctl@3.2:", type=("build", "run"))
    depends_on("py-matplotlib@3.5:", type=("build", "run"))
    depends_on("py-nibabel@5:", type=("build", "run"), when="+images")
    depends_on("py-scikit-learn@1.3:", type=("build", "run"), when="+images")
    depends_on("py-pyarrow@12:", type=("build", "run"), when="+parquet")
    depends_on("py-petsc4py@3.18:", type=("build", "run"), when="+slepc")
    depends_on("py-slepc4py@3.18:", type=("build", "run"), when="+slepc")

    def setup_run_environment(self, env):
        """netlib's library and MKL's layers are both found in the directory of the ScaLAPACK that was chosen."""
        env.set("MPGLS_SCALAPACK", self.spec["scalapack"].libs.directories[0])
