// Decides what a call does next on its transport, so that every call is finished exactly once and never while a write
// is in flight. No gRPC types: each order of events is tested alone.
//
//         OnHeadersSent, OnWriteDone
//          .----------------------.
//          v                      |
//   idle --Poll: headers, output-> writing     cancelled or ended and nothing in flight --Poll--> finished
//
// Whoever gets an action from Poll has the transport for itself until the action's completion comes back, so actions
// never overlap although many threads poll. Not thread-safe: the caller reads the demand and polls under one lock, or a
// stale demand could ask for output that another thread has taken. A call that is cancelled while a write is in flight
// is finished when that write reports back, whatever it reports: forgetting that hangs the server's shutdown for ever.
#ifndef SWITCHYARD_SERVER_FRONTEND_WRITE_SEQUENCER_H_
#define SWITCHYARD_SERVER_FRONTEND_WRITE_SEQUENCER_H_

#include <cstdint>

namespace switchyard {

enum class WriteAction : uint8_t {
  kNothing,
  kSendHeaders,     // send what precedes all output; report with OnHeadersSent
  kWrite,           // take the pending output and write it; report with OnWriteDone
  kWriteAndFinish,  // take the last output and send it together with the status, which is OK
  kFinish,          // send the status
};

// What there is to send. All only ever appear; output disappears only by being taken after kWrite.
struct WriteDemand {
  bool has_headers = false;  // before any output; an end without output needs none
  bool has_output = false;
  bool ended = false;  // no more output will come
  bool ok = true;      // the final status
};

class WriteSequencer {
 public:
  WriteAction Poll(const WriteDemand& demand);
  void OnHeadersSent();
  // `ok` false: the peer is gone.
  void OnWriteDone(bool ok);
  void OnCancel();

  bool cancelled() const { return cancelled_; }
  bool finished() const { return finished_; }

 private:
  bool writing_ = false;  // or sending headers
  bool headers_sent_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_WRITE_SEQUENCER_H_
