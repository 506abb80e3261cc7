// The admin socket's part of a trace: what is said with a domain's mail servers (engine/smtp/trace.h).
#pragma once

#include "engine/admin_transport.h"
#include "engine/engine.h"

namespace postrider {

// POST /trace {"domain"} begins one: {"id", "domain", "site", "hosts"}. GET /trace?id=N takes what was said since, waiting up to
// a second for it: {"lines", "lost"}. POST /trace/end {"id"} ends it, and so does a while without a GET (Tracer::kUnheard).
void serve_trace(AdminServer& server, Engine& engine);

}  // namespace postrider
