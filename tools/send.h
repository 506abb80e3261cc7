// `postrider send`: messages from stdin or files into the spool, with the manners of `sendmail -i`.
//
// A message is written with an envelope block to <spool>/tmp, synced, renamed into <spool>/new, and
// the folder is synced: when the command has answered 0, the message survives a power cut. Nothing
// of it is seen by the engine before the rename.
#pragma once

namespace postrider {

// argv[0] is "send". 0: all queued; 1: failed at run time; 2: usage. Errors are one line on stderr.
int run_send(int argc, char** argv);

}  // namespace postrider
