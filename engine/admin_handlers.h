// What the admin socket answers: one route for each question or command, JSON both ways.
//
//   GET  /status                       what the engine does
//   GET  /queue?limit=N[&SCOPE=NAME]   what is cancelled and suspended, the domains with the most mail
//   POST /queue/suspend|resume|cancel|flush    {"scope":"campaign","name":"x","for_s":7200,"reason":"..."}
//   GET  /shape[?domain=NAME]          what is set over the shaping files
//   POST /shape/set|unset             {"domain":"x.test","settings":[{"key":"connection_limit","value":"3"}],"for_s":60}
//   GET  /explain?domain=NAME          every limit, its origin and its use
//   GET  /why?domain=NAME or ?campaign=NAME or ?id=ID    what its mail waits for
//   POST /reload                       reads the configuration again
//
// An answer of 400 is one line of text: what is wrong with the request.
#pragma once

#include "engine/admin_transport.h"
#include "engine/engine.h"

namespace postrider {

// Both outlive the server's last request.
void serve_admin(AdminServer& server, Engine& engine, int64_t started_s);

}  // namespace postrider
