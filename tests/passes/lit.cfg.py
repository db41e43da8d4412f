# Text tests of the graph passes: each .kir runs kiln-opt and FileCheck as its RUN lines say.
import os

import lit.formats

config.name = "passes"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".kir"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = lit_config.params["out"]
config.substitutions.append(("%opt", lit_config.params["kiln_opt"] + " --verify-each"))
config.substitutions.append(("%check", lit_config.params["filecheck"]))
