"""How many cores a process may use: the smallest quota of its cgroups, and its affinity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cores import Cores, available_cores, cgroup_quota, cores

ROOT = Path(__file__).parents[2]
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = "25 1 0:23 / / rw - ext4 /dev/sda rw\n40 31 0:37 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"


def system(root: Path, groups: str, mounts: str, **files: str) -> Path:
    """A root folder as a kernel shows it; `files` are contents by path below `sys/fs/cgroup`, with `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups + "\n")
    (root / "proc/self/mountinfo").write_text(f"{OTHERS}\n{mounts}\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def test_version_2_in_a_container(tmp_path):
    assert cgroup_quota(system(tmp_path, "0::/", V2, cpu_max="150000 100000")) == 1.5


@pytest.mark.parametrize(
    ("outer", "inner", "quota"),
    [
        ("max 100000", "300000 100000", 3),
        ("50000 100000", "300000 100000", 0.5),
        ("400000 100000", "max 100000", 4),
        ("max 100000", "max 100000", None),
    ],
)
def test_the_smallest_of_version_2_on_the_way_up(tmp_path, outer, inner, quota):
    files = {"a.slice__cpu_max": outer, "a.slice__b__cpu_max": inner, "elsewhere__cpu_max": "1000 100000"}
    assert cgroup_quota(system(tmp_path, "0::/a.slice/b", V2, **files)) == quota


def test_version_1_and_what_is_above_it(tmp_path):
    files = {
        "cpu,cpuacct__cpu_cfs_quota_us": "-1",
        "cpu,cpuacct__cpu_cfs_period_us": "100000",
        "cpu,cpuacct__a__cpu_cfs_quota_us": "200000",
        "cpu,cpuacct__a__cpu_cfs_period_us": "100000",
        "cpu,cpuacct__a__b__cpu_cfs_quota_us": "150000",
        "cpu,cpuacct__a__b__cpu_cfs_period_us": "50000",
        "cpuset__cpu_cfs_quota_us": "1000",
        "cpuset__cpu_cfs_period_us": "100000",
    }
    groups = "4:cpuset:/\n3:cpu,cpuacct:/a/b\n1:name=systemd:/elsewhere"
    assert cgroup_quota(system(tmp_path, groups, V1, **files)) == 2


def test_no_quota_of_version_1(tmp_path):
    files = {"cpu,cpuacct__cpu_cfs_quota_us": "-1", "cpu,cpuacct__cpu_cfs_period_us": "100000"}
    assert cgroup_quota(system(tmp_path, "3:cpu,cpuacct:/", V1, **files)) is None


def test_both_versions_on_one_machine(tmp_path):
    unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    files = {
        "unified__s__cgroup.procs": "1",  # version 2 without the controller
        "cpu,cpuacct__s__cpu_cfs_quota_us": "100000",
        "cpu,cpuacct__s__cpu_cfs_period_us": "100000",
    }
    assert cgroup_quota(system(tmp_path, "3:cpu,cpuacct:/s\n0::/s", f"{unified}\n{V1}", **files)) == 1


def test_a_container_that_sees_the_paths_of_its_host(tmp_path):
    mount = V2.replace("0:26 / ", "0:26 /docker/abc ")
    root = system(tmp_path, "0::/docker/abc/job", mount, cpu_max="200000 100000", job__cpu_max="max 100000")
    assert cgroup_quota(root) == 2


@pytest.mark.parametrize("path", ["/../other", "/machine/other"])
def test_a_cgroup_outside_of_the_mount_counts_by_the_mount(tmp_path, path):
    mount = V2.replace("0:26 / ", "0:26 /docker/abc ") if path == "/machine/other" else V2
    root = system(tmp_path, f"0::{path}", mount, cpu_max="200000 100000")
    (tmp_path / "sys/fs/other").mkdir()
    (tmp_path / "sys/fs/other/cpu.max").write_text("100000 100000\n")
    assert cgroup_quota(root) == 2


def test_a_mount_with_a_space_in_its_name(tmp_path):
    root = system(tmp_path, "0::/", V2.replace("fs/cgroup ", "fs/c\\040g "))
    (root / "sys/fs/c g").mkdir(parents=True)
    (root / "sys/fs/c g/cpu.max").write_text("100000 50000\n")
    assert cgroup_quota(root) == 2


@pytest.mark.parametrize("text", ["", "much", "100000", "1 2 3", "100000 0", "-5 100000", "a b", "\udcff"])
def test_what_makes_no_sense_sets_no_quota(tmp_path, text):
    root = system(tmp_path, "0::/a", V2, cpu_max="300000 100000", a__cpu_max="")
    (root / "sys/fs/cgroup/a/cpu.max").write_text(text, errors="surrogateescape")
    assert cgroup_quota(root) == 3


@pytest.mark.parametrize("groups", ["", "nonsense", "0::", ":::"])
@pytest.mark.parametrize("mounts", ["", "nonsense - cgroup2", "1 2 3 - cgroup2 cgroup2 rw", V1])
def test_what_cannot_be_understood_sets_no_quota(tmp_path, groups, mounts):
    assert cgroup_quota(system(tmp_path, groups, mounts)) is None


def test_what_cannot_be_read_sets_no_quota(tmp_path):
    assert cgroup_quota(tmp_path) is None
    root = system(tmp_path, "0::/", V2)
    (root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # a read fails, for root too
    assert cgroup_quota(root) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "count"),
    [(8, None, 8), (8, 1.0, 1), (8, 1.5, 1), (8, 0.25, 1), (8, 2.9, 2), (8, 3.0, 3), (2, 16.0, 2), (1, None, 1)],
)
def test_whole_cores_and_at_least_one(affinity, quota, count):
    assert Cores(affinity, quota).count == count


def test_it_says_where_they_come_from():
    assert str(Cores(8, 1.5)) == "1 core (8 by affinity, a cgroup quota of 1.5)"
    assert str(Cores(2)) == "2 cores (2 by affinity, no cgroup quota)"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert (cores().affinity, available_cores()) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)


CODE = """
import os, sys
group = sys.argv[1]
open(group + "/cgroup.procs", "w").write(str(os.getpid()))
from service.process import prepare_process
prepare_process()
import faiss, numpy, torch
from service.config import RuntimeConfig
from service.cores import cores
from service.encoder.runtimes.machine import threads
print(cores().quota, cores().count, threads(RuntimeConfig()), torch.get_num_threads(), faiss.omp_get_max_threads(),
      os.environ["RAYON_NUM_THREADS"])
"""


@pytest.fixture
def group():
    """A cgroup of our own under a quota of one core."""
    parent = next((path for path in map(Path, ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")) if path.is_dir()), Path())
    folder = parent / f"millpond-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("cgroups cannot be made here")
    try:
        try:
            if (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text("100000 100000")
            else:
                (folder / "cpu.cfs_quota_us").write_text("100000")
        except OSError:
            pytest.skip("the cpu controller cannot be used here")
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.slow
def test_a_process_under_a_quota_uses_one_core_in_every_library(group):
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", CODE, str(group)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "1", "1", "1", "1", "1"]
