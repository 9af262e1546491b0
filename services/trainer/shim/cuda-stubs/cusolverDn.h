// Own declaration stub.
#pragma once
#include "cusolver_common.h"
