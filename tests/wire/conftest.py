"""Property tests have no deadline here: a loaded machine is no bug of ours."""

from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
