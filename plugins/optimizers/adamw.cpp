// Adam with decoupled weight decay: see adam.hpp.
#include "adam.hpp"

TN_PLUGIN("Tenon", "1.0",
          tn::optimizer<Adam<true>>("adamw", "Adam with decoupled weight decay",
                                    "Loshchilov & Hutter 2019, arXiv 1711.05101"))
