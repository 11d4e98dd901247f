// The backends that a test program runs on. The same tests are built once for each kind of device, which
// SWITCHYARD_TEST_DEVICE names: "cpu", "emulated" (the CUDA backend on the CPU, tests/support/cuda_emulation) or "cuda"
// (the real thing; skipped with the reason where there is none).
#ifndef SWITCHYARD_TESTS_SUPPORT_TEST_BACKENDS_H_
#define SWITCHYARD_TESTS_SUPPORT_TEST_BACKENDS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace switchyard::testing {

// A backend by the option in which backends of one device differ: the instruction set of a CPU, or who multiplies the
// experts on a GPU.
using Variant = std::string;

// All that this machine could have; a test skips where MakeBackend says FAILED_PRECONDITION. With
// SWITCHYARD_REQUIRE_GPU in the environment a GPU that cannot be used is a failure. `expert_gemms`: also those that
// differ in the products of the experts alone.
std::vector<Variant> Variants(bool expert_gemms = false);

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Variant& variant, int num_threads);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_TEST_BACKENDS_H_
