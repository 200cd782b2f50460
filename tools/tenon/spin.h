// How long a thread that waits for the others keeps a core busy.
#pragma once

namespace tenon::cli {

// Threads of libgomp, which oneDNN and our loops run on, spin for ten milliseconds before they let go of a
// core. Where another program runs too, the thread that is waited for may need that very core: steps then
// take a hundred times as long. libgomp reads its settings when it is loaded, so they are put into the
// environment and the program begins anew; nothing happens where OMP_WAIT_POLICY or GOMP_SPINCOUNT says what
// to do.
void spin_briefly(char** argv);

}  // namespace tenon::cli
