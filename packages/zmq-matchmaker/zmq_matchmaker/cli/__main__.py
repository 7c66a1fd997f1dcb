# SPDX-License-Identifier: Apache-2.0
"""`python -m zmq_matchmaker.cli`."""

import sys

from zmq_matchmaker.cli.main import main

sys.exit(main())
