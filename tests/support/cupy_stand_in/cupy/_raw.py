class RawKernel: pass
class RawModule: pass
