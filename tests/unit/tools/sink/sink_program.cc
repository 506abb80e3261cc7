// `postrider sink` as a program of its own, for the tests of its command line.
#include "tools/sink/sink.h"

int main(int argc, char** argv) { return postrider::run_sink(argc, argv); }
