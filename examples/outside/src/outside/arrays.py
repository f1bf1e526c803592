"""A library of arrays that bilevel does not know: array-api-strict, under this name."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

origin = find_spec("array_api_strict")
assert origin is not None
spec = spec_from_file_location(
    __name__, origin.origin, submodule_search_locations=origin.submodule_search_locations
)
assert spec is not None and spec.loader is not None
library = sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(library)
