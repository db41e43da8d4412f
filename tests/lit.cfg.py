# Text tests: a .kir file with RUN and CHECK lines. Configured by tests/CMakeLists.txt, which passes the build
# folder and FileCheck as parameters:
#   lit tests/kir -D bin=build/bin -D filecheck=FileCheck-19
import os
import lit.formats

config.name = "kiln"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".kir"]
config.excludes = ["Inputs", "eval", "imports"]
config.test_source_root = os.path.dirname(__file__)
bin_dir = lit_config.params.get("bin", os.path.join(config.test_source_root, "..", "build", "bin"))
config.test_exec_root = os.path.join(bin_dir, "..", "tests", "lit")
config.environment["PATH"] = os.path.abspath(bin_dir) + os.pathsep + os.environ.get("PATH", "")
for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
    if name in os.environ:
        config.environment[name] = os.environ[name]
config.substitutions.append(("%FileCheck", lit_config.params.get("filecheck", "FileCheck")))
