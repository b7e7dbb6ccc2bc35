"""Terms of a batch whose rows lie on several devices are those of the whole batch."""

import json
import subprocess
import sys

import numpy as np
from support.paths import TESTS


def test_a_batch_on_four_devices_is_the_whole_batch():
    """Means over rows under shard_map, by pmean; all others under jit. SAM's length is that of all rows."""
    child = [sys.executable, "-m", "support.children", "shards"]
    run = subprocess.run(child, cwd=TESTS, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert len(told) == 36
    for name, (alone, together) in told.items():
        assert np.any(alone), name
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6, err_msg=name)
