# What switchyard_bench_gpu is made of, beside the backend's kernels.
set(SWITCHYARD_GPU_BENCH_SOURCES)
foreach(name attention_bench.cc attention_layer.cc bench.cc bench_kernels.cu ceilings.cc check_kernels.cc check_rows.cc
        dense_bench.cc device.cc main.cc models.cc moe_bench.cc moe_cublas.cc moe_layer.cc moe_providers.cc report.cc
        routing.cc small_bench.cc step_bench.cc timing.cc tuning.cc tuning_choice.cc)
  list(APPEND SWITCHYARD_GPU_BENCH_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name})
endforeach()
