// Times and durations as Protobuf's well-known types.
#ifndef SWITCHYARD_SERVER_FRONTEND_PROTO_TIME_H_
#define SWITCHYARD_SERVER_FRONTEND_PROTO_TIME_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <chrono>
#include <cmath>

namespace switchyard {

// `out`: Timestamp or Duration.
void SetNanos(int64_t nanos, auto* out) {
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

inline void SetDuration(double seconds, google::protobuf::Duration* out) { SetNanos(std::llround(seconds * 1e9), out); }

inline void SetTime(std::chrono::system_clock::time_point time, google::protobuf::Timestamp* out) {
  SetNanos(std::chrono::nanoseconds(time.time_since_epoch()).count(), out);
}

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_PROTO_TIME_H_
