# SPDX-License-Identifier: Apache-2.0
# What every distribution's BUILD file says alike; docs/development.md explains it.

# The namespaces that plug-ins of the packages are loaded from.
MATCHMAKERS = "oslo.messaging.zmq.matchmaker"
DRIVERS = "oslo.messaging.drivers"
OPTIONS = "oslo.config.opts"


# What pip reads of the environment, for tests that call it.
PIP_SETTINGS = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)

# Of a package's __dependents_rules__: a module _name.py is its package's own business.
PRIVATE_MODULES = (
    ("[/**/__init__.py]", "*"),
    ("[/**/_*.py]", "/**", "!*"),
)


def not_from_pypi(*names):
    """Rules of __dependencies_rules__ that forbid these distributions of the lock file."""
    return tuple("!//3rdparty/python#" + name for name in names)


def conftest(source="conftest.py"):
    """A conftest.py; pants-plugins/monorepo/conftests.py says why mypy skips it at first."""
    python_test_utils(name="conftest", sources=[source], skip_mypy=True)


def distribution(name, entry_points=None, loads=(), documents=()):
    """One of packages/*: its import package, its tests, and its wheel and sdist.

    ``entry_points`` are those of the namespaces above, once more: Pants reads them from here,
    pip from pyproject.toml, and tests/test_packaging.py fails where the two differ. ``loads``
    are the namespaces whose entry points its tests see, as if all that offer them were
    installed; ``documents`` the pages of docs/ that they check.
    """
    module = name.replace("-", "_")

    resources(
        name="data",
        sources=[module + "/**/" + kind for kind in ("py.typed", "*.lua", "*.json", "*.service")],
    )
    resources(name="metadata", sources=["pyproject.toml", "README.md", "CHANGELOG.md"])
    python_sources(
        name="lib",
        sources=[module + "/**/*.py"],
        dependencies=[":data"],
    )

    conftest("tests/conftest.py")
    python_test_utils(
        name="test-utils",
        sources=["tests/**/*.py", "!tests/**/test_*.py", "!tests/conftest.py"],
    )
    # They depend on the whole library, since plug-ins are loaded by name, and on the README,
    # whose examples run as tests.
    python_tests(
        name="tests",
        sources=["tests/**/test_*.py"],
        dependencies=[":lib", ":metadata", *("docs/" + page + ":docs" for page in documents)],
        stevedore_namespaces=loads or None,
    )

    # For tests/test_fault_cases.py, which reads them.
    files(name="test-sources", sources=["tests/**/test_*.py"])

    python_distribution(
        name="dist",
        dependencies=[":lib", ":metadata"],
        provides=python_artifact(name=name),
        # pyproject.toml says everything; Pants writes no setup.py.
        generate_setup=False,
        entry_points={
            stevedore_namespace(key): value for key, value in (entry_points or {}).items()
        },
    )
