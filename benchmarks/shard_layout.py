"""Reading activation shards: our layout against other ways to keep the same numbers.

    python benchmarks/shard_layout.py

131,072 tokens of 768 float16 values, page cache warm, one thread.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from timing import interleaved

N, D = 131_072, 768


def main() -> None:
    pa.set_cpu_count(1)
    torch.set_num_threads(1)
    x = np.random.default_rng(0).standard_normal((N, D), np.float32).astype(np.float16)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), D)
    width = pa.binary(2 * D)
    binary = pa.FixedSizeBinaryArray.from_buffers(width, N, [None, pa.py_buffer(x.tobytes())])
    with tempfile.TemporaryDirectory() as folder:
        ours, plain, default = (Path(folder) / f"{n}.parquet" for n in ("ours", "plain", "default"))
        bare = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(
            pa.table({"x": binary}), ours, row_group_size=8192, write_page_checksum=True, **bare
        )
        pq.write_table(pa.table({"x": lists}), plain, row_group_size=8192, **bare)
        pq.write_table(pa.table({"x": lists}), default, row_group_size=8192)

        def read(path: Path, **options: bool) -> None:
            file = pq.ParquetFile(path, memory_map=True, **options)
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)

        target = np.empty_like(x)
        seconds = interleaved(
            {
                "ours: fixed-size binary, checksums on": lambda: read(
                    ours, page_checksum_verification=True
                ),
                "list of float16, uncompressed": lambda: read(plain),
                "list of float16, pyarrow defaults": lambda: read(default),
                "memcpy (floor)": lambda: np.copyto(target, x),
            }
        )
    best = seconds["ours: fixed-size binary, checksums on"]
    print(f"{'layout':40} {'GB/s':>6} {'time / ours':>12}")
    for name, value in seconds.items():
        print(f"{name:40} {x.nbytes / value / 1e9:6.2f} {value / best:12.2f}")


if __name__ == "__main__":
    main()
