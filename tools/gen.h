// `postrider gen`: fills a spool for load tests. Each message has its own Message-ID, To, X-Seq and
// an X-Canary: field with a hash of its recipients, by which a sink proves that no two messages
// were mixed (FAULTS 55).
#pragma once

#include <string>
#include <string_view>

namespace postrider {

// argv[0] is "gen". 0: done; 1: failed at run time; 2: usage. Errors are one line on stderr.
int run_gen(int argc, char** argv);

// The value of X-Canary for one recipient: hash64 of the address in lower case as 16 hexadecimal
// digits. A message with several recipients carries one X-Canary field for each.
std::string canary(std::string_view recipient);

}  // namespace postrider
