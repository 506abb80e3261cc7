// The live line of `postrider run`: sent, deferred, bounced, rate, connections, and how long it will still take.
#pragma once

#include "engine/engine.h"

namespace postrider {

class Progress {
  public:
    // To stderr: on a terminal one line that is written over, elsewhere a line every few seconds.
    explicit Progress(MonoNs now_ns);
    void show(const Totals& totals, MonoNs now_ns);
    // Ends the live line and prints the sum.
    void end(const Totals& totals, MonoNs now_ns);

  private:
    bool terminal_;
    bool shown_ = false;
    MonoNs started_ns_, last_ns_;
    uint64_t last_delivered_ = 0;
    double rate_ = 0;
};

}  // namespace postrider
