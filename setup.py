"""Builds the Cython core: every ``_native/*.pyx`` becomes ``gateway._native.<name>``.

It also compiles ``protos/*.proto`` into the descriptor set that ``gateway/protos.py`` loads.
Everything else about the distribution is declared in ``pyproject.toml``.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from grpc_tools import protoc
from setuptools import Extension, setup

ROOT = Path(__file__).parent
DESCRIPTOR_SET = Path("gateway/protos.binpb")


def link_package() -> Path:
    """Let ``_native/`` be found as the package that it becomes.

    The core's modules ``cimport`` one another by their full name, and Cython, like mypy for the
    stubs, finds them only on a path that spells that name: ``gateway/_native`` is a link.
    """
    link = Path("gateway/_native")
    if not link.is_symlink():
        link.symlink_to(Path("../_native"), target_is_directory=True)
    return link


def extensions() -> list[Extension]:
    """Cythonize ``_native/*.pyx``; warnings are errors."""
    sources = link_package()
    flags = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    # A compiler we have not met may warn about generated code; it must not keep its owner from
    # installing, so the strictness can be turned off from outside.
    strict = os.environ.get("ONNX_GATEWAY_WERROR", "1") == "1"
    if strict:
        flags.append("-Werror")
    Options.warning_errors = strict
    macros: list[tuple[str, str | None]] = []
    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
    }
    if os.environ.get("ONNX_GATEWAY_TRACE") == "1":
        macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
        directives["linetrace"] = True
    # For fuzzing (tests/fuzz), with clang: whatever can check itself does, and reports name the
    # lines of the .pyx files. The C code differs, so it is kept apart from everybody else's.
    sanitize = os.environ.get("ONNX_GATEWAY_SANITIZE") == "1"
    if sanitize:
        flags += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"]
        flags += ["-fsanitize=address,undefined,fuzzer-no-link", "-fno-sanitize-recover=undefined"]
        directives["boundscheck"] = True
    modules = sorted(source.stem for source in (ROOT / "_native").glob("*.pyx"))
    return cythonize(
        [
            Extension(
                f"gateway._native.{module}",
                [str(sources / f"{module}.pyx")],
                extra_compile_args=flags,
                define_macros=macros,
            )
            for module in modules
        ],
        build_dir="build/fuzz/c" if sanitize else "build/c",
        emit_linenums=sanitize,
        compiler_directives=directives,
    )


def compile_protos() -> None:
    """Write the descriptor set of ``protos/`` into the package, where it ships as package data.

    It is written into the source tree before setuptools looks at anything, so that a wheel, an
    editable install and ``build_ext --inplace`` all find it in the same place.
    """
    sources = sorted(Path("protos").glob("*.proto"))
    arguments = [
        "protoc",
        "-Iprotos",
        "--include_imports",
        f"--descriptor_set_out={DESCRIPTOR_SET}",
    ]
    if protoc.main(arguments + [str(source) for source in sources]) != 0:
        raise SystemExit("protoc refused protos/*.proto; its messages are above")


compile_protos()
setup(ext_modules=extensions())
