// A function of both sides: of the processor, and where nvcc compiles it, of the GPU.
#pragma once

#if defined(__CUDACC__)
#define FASTLSTM_HOST_DEVICE __host__ __device__
#else
#define FASTLSTM_HOST_DEVICE
#endif
