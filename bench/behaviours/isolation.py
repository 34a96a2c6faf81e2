"""Namespaces of one's own: network, mounts, processes; of root, or of any user where the kernel lets them."""

import os
import subprocess

UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def isolation():
    """The command in front of one that gives it namespaces of its own; none where that cannot be had."""
    prefix = UNSHARE if os.geteuid() == 0 else [*UNSHARE, "--user", "--map-root-user"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else []
