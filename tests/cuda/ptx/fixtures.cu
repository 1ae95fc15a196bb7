// Every shipped kernel as nvcc sees it: what launch.cu launches is instantiated there.
#include "launch.cu"
