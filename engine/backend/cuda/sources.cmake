# The CUDA backend's sources: built by nvcc into the plugin, and by the C++ compiler for the tests that emulate a device.
set(SWITCHYARD_CUDA_DIR ${PROJECT_SOURCE_DIR}/engine/backend/cuda)
set(SWITCHYARD_CUDA_HOST_SOURCES)
foreach(name activations cublas cuda_backend cuda_backend_attention cuda_backend_latent cuda_backend_moe
        cuda_backend_parts cuda_backend_results cuda_backend_rows cuda_backend_step device_memory expert_gemm_choice
        expert_gemm_cublas expert_gemm_native expert_gemm_table expert_gemm_wgmma expert_products recorder step_inputs
        step_results tensor_map weights)
  list(APPEND SWITCHYARD_CUDA_HOST_SOURCES ${SWITCHYARD_CUDA_DIR}/${name}.cc)
endforeach()
set(SWITCHYARD_CUDA_KERNEL_SOURCES)
foreach(name activate attention_decode attention_experts attention_f32 attention_prefill expert_rows group_by_expert
        grouped_gemm latent_attention linear_per_part rope_and_cache router rowwise sampling wgmma_gemm)
  list(APPEND SWITCHYARD_CUDA_KERNEL_SOURCES ${SWITCHYARD_CUDA_DIR}/${name}.cu)
endforeach()
