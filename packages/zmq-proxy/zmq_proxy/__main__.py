# SPDX-License-Identifier: Apache-2.0
"""`python -m zmq_proxy`."""

import sys

from zmq_proxy.cmd import main

sys.exit(main())
