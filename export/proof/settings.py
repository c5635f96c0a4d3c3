"""The settings a proof runs under: limits of the CPU library's instruction sets, and thread counts."""

#: Limits of the CPU library's instruction sets; '' leaves it alone.
ISAS = ("", "AVX512_CORE", "AVX2_VNNI", "AVX2")
THREADS = (1, 2)
