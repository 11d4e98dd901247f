// Marks functions that kernels call, too.
#ifndef SWITCHYARD_ENGINE_BASE_HOST_DEVICE_H_
#define SWITCHYARD_ENGINE_BASE_HOST_DEVICE_H_

#ifdef __CUDACC__
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif

#endif  // SWITCHYARD_ENGINE_BASE_HOST_DEVICE_H_
