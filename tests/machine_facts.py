"""What mpgls doctor would have measured on a machine of round numbers, and on one with a GPU a rank."""

FACTS = {
    **{f"{stem}_gflops_double": 50.0 for stem in ("gemm", "potrf", "potrf_grid", "trsm")},
    **{f"{stem}_gflops_single": 100.0 for stem in ("gemm", "potrf", "potrf_grid", "trsm")},
    **{f"decode_genotypes_per_s_{precision}": 1e9 for precision in ("double", "single")},
    **{f"products_numbers_per_s_{precision}": 1e9 for precision in ("double", "single")},
    "count_genotypes_per_s": 2e9,
    "epilogue_numbers_per_s": 1e8,
    "scale_numbers_per_s": 1e9,
    "touch_mb_per_s": 2e3,
    "table_rows_per_s": 4e5,
    "exchange_mb_per_s": 5e3,
    "read_mb_per_s": 1e3,
    "write_mb_per_s": 500.0,
    "startup_seconds": 0.5,
    "sync_seconds": 0.01,
    "eigen_gflops": 10.0,
    "tile_numbers_per_s": 2e8,
}

CARD_FACTS = {
    **FACTS,
    "gpu": "a GPU of round numbers",
    "gpu_gemm_gflops_double": 5e4,
    "gpu_potrf_gflops_double": 4e4,
    "gpu_gflops_half": 8e5,
    "gpu_gops_int8": 1e6,
    "gpu_copy_mb_per_s": 5e4,
    "gpu_decode_genotypes_per_s": 4e11,
    "gpu_sums_numbers_per_s": 5e11,
    "gpu_memory_gib": 64.0,
}
