#include "server/frontend/write_sequencer.h"

namespace switchyard {

WriteAction WriteSequencer::Poll(const WriteDemand& demand) {
  if (finished_ || writing_) return WriteAction::kNothing;
  if (!cancelled_ && demand.has_headers && !headers_sent_) {
    writing_ = true;
    return WriteAction::kSendHeaders;
  }
  if (!cancelled_ && demand.has_output) {
    const bool last = demand.ended && demand.ok;
    (last ? finished_ : writing_) = true;
    return last ? WriteAction::kWriteAndFinish : WriteAction::kWrite;
  }
  if (!cancelled_ && !demand.ended) return WriteAction::kNothing;
  finished_ = true;
  return WriteAction::kFinish;
}

void WriteSequencer::OnHeadersSent() {
  writing_ = false;
  headers_sent_ = true;
}

void WriteSequencer::OnWriteDone(bool ok) {
  writing_ = false;
  if (!ok) cancelled_ = true;
}

void WriteSequencer::OnCancel() { cancelled_ = true; }

}  // namespace switchyard
