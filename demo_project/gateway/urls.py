"""The page, and the HTTP API behind it."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.page),
    path("api/users", views.users),
    path("api/users/count", views.count),
    path("api/users/stream", views.stream),
    path("api/users/<int:pk>", views.user),
]
