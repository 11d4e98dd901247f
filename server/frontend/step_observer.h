// What the serving loop tells of itself, passed on to metrics and frontend: metrics first, so that whoever reads a
// message or a status finds it counted.
#ifndef SWITCHYARD_SERVER_FRONTEND_STEP_OBSERVER_H_
#define SWITCHYARD_SERVER_FRONTEND_STEP_OBSERVER_H_

#include "server/frontend/frontend.h"
#include "server/metrics/serving_metrics.h"
#include "server/scheduler/serving_loop.h"

namespace switchyard {

class StepObserver final : public LoopObserver {
 public:
  // Both outlive the observer.
  StepObserver(ServingMetrics* metrics, Frontend* frontend) : metrics_(metrics), frontend_(frontend) {}

  void OnStep(const StepReport& report) override {
    metrics_->OnStep(report);
    frontend_->Flush();
  }
  void OnFinished(const Request& request, const FinishedEvent& event) override { metrics_->OnFinished(request, event); }
  void OnEngineFailed() override { frontend_->MarkEngineFailed(); }

 private:
  ServingMetrics* const metrics_;
  Frontend* const frontend_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_STEP_OBSERVER_H_
