"""The image's tests need the image: `make prove` builds it and names it in TEST_IMAGE. That it is built again only
`make prove` asks for, by TEST_REBUILD, because it takes a minute or two."""

import os

collect_ignore_glob = [] if "TEST_IMAGE" in os.environ else ["test_*.py"]
collect_ignore = [] if "TEST_REBUILD" in os.environ else ["test_rebuild.py"]
