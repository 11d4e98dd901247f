// Early return of absl::Status, and CHECK for our own bugs.
#ifndef SWITCHYARD_ENGINE_BASE_STATUS_MACROS_H_
#define SWITCHYARD_ENGINE_BASE_STATUS_MACROS_H_

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SWITCHYARD_CONCAT_INNER(a, b) a##b
#define SWITCHYARD_CONCAT(a, b) SWITCHYARD_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                              \
  do {                                                           \
    absl::Status switchyard_status = (expression);               \
    if (!switchyard_status.ok()) return switchyard_status;       \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expression) \
  SWITCHYARD_ASSIGN_OR_RETURN(SWITCHYARD_CONCAT(switchyard_or_, __LINE__), lhs, expression)

#define SWITCHYARD_ASSIGN_OR_RETURN(temporary, lhs, expression) \
  auto temporary = (expression);                                \
  if (!temporary.ok()) return temporary.status();               \
  lhs = *std::move(temporary)

// A broken CHECK is a bug of ours: the process says where and aborts.
#define CHECK(condition)                                                                       \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);       \
      std::abort();                                                                            \
    }                                                                                          \
  } while (false)

#endif  // SWITCHYARD_ENGINE_BASE_STATUS_MACROS_H_
